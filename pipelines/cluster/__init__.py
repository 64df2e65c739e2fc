"""What a run as one job on a cluster adds: its rules, Beam's options, submission and drain."""
