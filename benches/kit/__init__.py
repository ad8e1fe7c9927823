"""What the measurements in this folder share: building, servers, and the environment of h."""
