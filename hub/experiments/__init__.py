"""What `hub compare` and `hub bench` share: contenders, devices, models, processes, measuring."""
