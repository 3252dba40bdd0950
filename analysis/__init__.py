"""What is measured of trained networks: evaluation, probes, statistics, attribution, pictures. Nothing learns here."""
