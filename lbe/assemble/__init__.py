"""From a config to the parts of a run; beside it only commands read one."""
