output "relay" {
  description = "What the relay is started with, as its service account."
  value = join(" ", [
    "--feed_api_key=secret:${google_secret_manager_secret.api_key.id}",
    "--pubsub_topic=${google_pubsub_topic.events.id}",
  ])
}

output "job" {
  value = google_dataflow_flex_template_job.grantex.job_id
}
