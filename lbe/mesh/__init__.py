"""The machines: hosts, devices, what lies where, what compilers make of it."""
