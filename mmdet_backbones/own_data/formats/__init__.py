"""The ways in which a folder annotates its images: one file each."""
