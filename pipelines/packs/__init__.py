"""What users set up at their own services: alerts, searches, dashboards, queries, retention."""
