"""Runs what ``deploy`` wrote: numpy and one engine, without torch and mmdet."""
