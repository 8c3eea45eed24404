"""Starting mmengine's Runner from a config, with messages for people."""
