"""What does pieces of work side by side: processes of this machine, or a cluster."""
