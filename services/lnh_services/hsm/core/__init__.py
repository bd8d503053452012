"""The core process: the local console, the workers' secrets, the processes of the hsm."""
