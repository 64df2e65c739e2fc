# An example: a relay on one machine publishes to a topic, a Dataflow job keeps BigQuery complete from it.
# What is created may do what it needs and nothing else.

terraform {
  required_version = ">= 1.5"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.0"
    }
    google-beta = {
      source  = "hashicorp/google-beta"
      version = ">= 6.0"
    }
  }
}

provider "google" {
  project = var.project
  region  = var.region
}

provider "google-beta" {
  project = var.project
  region  = var.region
}

# Who does what

resource "google_service_account" "relay" {
  account_id   = "grantex-relay"
  display_name = "grantex-beam on one machine: reads the feed, publishes to Pub/Sub"
}

resource "google_service_account" "workers" {
  account_id   = "grantex-workers"
  display_name = "grantex-beam on Dataflow: launcher and workers"
}

resource "google_project_iam_member" "workers" {
  project = var.project
  role    = "roles/dataflow.worker"
  member  = google_service_account.workers.member
}

resource "google_artifact_registry_repository_iam_member" "image" {
  location   = var.region
  repository = var.repository
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.workers.member
}

# The secret: its value is put in by hand, so that it is in no state file
#   printf %s "$KEY" | gcloud secrets versions add grantex-api-key --data-file=-

resource "google_secret_manager_secret" "api_key" {
  secret_id = "grantex-api-key"
  replication {
    auto {}
  }
}

resource "google_secret_manager_secret_iam_member" "relay" {
  secret_id = google_secret_manager_secret.api_key.id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.relay.member
}

# From the relay to the job

resource "google_pubsub_topic" "events" {
  name = "grantex-events"
}

resource "google_pubsub_topic_iam_member" "relay" {
  topic  = google_pubsub_topic.events.id
  role   = "roles/pubsub.publisher"
  member = google_service_account.relay.member
}

resource "google_pubsub_subscription" "events" {
  name  = "grantex-events"
  topic = google_pubsub_topic.events.id
  # As long as the job may be down without losing anything; never expires.
  message_retention_duration = "604800s"
  # What a destination has not taken is in the job alone, and a cancelled job loses it: then `seek` brings it
  # back (docs/dataflow.md). Billed as storage.
  retain_acked_messages      = true
  ack_deadline_seconds       = 60
  expiration_policy {
    ttl = ""
  }
}

resource "google_pubsub_subscription_iam_member" "workers" {
  for_each     = toset(["roles/pubsub.subscriber", "roles/pubsub.viewer"])
  subscription = google_pubsub_subscription.events.id
  role         = each.value
  member       = google_service_account.workers.member
}

# Where the job keeps its files, and dead letters

resource "google_storage_bucket" "work" {
  name                        = "${var.project}-grantex"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  # Dataflow deletes what it no longer needs; soft delete would keep and bill it.
  soft_delete_policy {
    retention_duration_seconds = 0
  }
  lifecycle_rule {
    condition {
      age            = 30
      matches_prefix = ["staging/", "temp/"]
    }
    action {
      type = "Delete"
    }
  }
}

resource "google_storage_bucket_iam_member" "workers" {
  bucket = google_storage_bucket.work.id
  role   = "roles/storage.objectAdmin"
  member = google_service_account.workers.member
}

# The destination

resource "google_bigquery_dataset" "events" {
  dataset_id = "grantex"
  location   = var.region
}

resource "google_bigquery_dataset_iam_member" "workers" {
  dataset_id = google_bigquery_dataset.events.dataset_id
  role       = "roles/bigquery.dataEditor"
  member     = google_service_account.workers.member
}

# The key, if there is one: those who encrypt with it are Google's own accounts in this project

data "google_project" "this" {
  project_id = var.project
}

resource "google_kms_crypto_key_iam_member" "agents" {
  for_each      = toset(var.kms_key == null ? [] : ["dataflow-service-producer-prod", "compute-system"])
  crypto_key_id = var.kms_key
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = "serviceAccount:service-${data.google_project.this.number}@${each.value}.iam.gserviceaccount.com"
}

# The job

resource "google_dataflow_flex_template_job" "grantex" {
  provider                = google-beta
  name                    = "grantex-${var.generation}"
  region                  = var.region
  container_spec_gcs_path = var.template
  on_delete               = "drain"
  service_account_email   = google_service_account.workers.email
  staging_location        = "${google_storage_bucket.work.url}/staging"
  temp_location           = "${google_storage_bucket.work.url}/temp"
  num_workers             = var.workers
  max_workers             = var.workers
  machine_type            = var.machine_type
  subnetwork              = var.subnetwork
  ip_configuration        = var.private_ips ? "WORKER_IP_PRIVATE" : "WORKER_IP_PUBLIC"
  kms_key_name            = var.kms_key

  parameters = merge({
    pubsub_subscription = google_pubsub_subscription.events.id
    dead_letters        = "${google_storage_bucket.work.url}/dead_letters"
    bigquery_table      = "${var.project}.${google_bigquery_dataset.events.dataset_id}.events"
  }, var.more_parameters)

  # The name carries the generation: the new job is there before the old one is drained.
  lifecycle {
    create_before_destroy = true
  }

  depends_on = [
    google_project_iam_member.workers,
    google_artifact_registry_repository_iam_member.image,
    google_storage_bucket_iam_member.workers,
    google_pubsub_subscription_iam_member.workers,
    google_bigquery_dataset_iam_member.workers,
    google_kms_crypto_key_iam_member.agents,
  ]
}
