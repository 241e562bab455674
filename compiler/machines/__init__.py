"""What this machine, or the one of the deployment, has and can do; not what is compiled for it."""
