"""Terraform of `provision --print=true`: it reads the JSON files beside it, so nothing is said twice."""

DATADOG = """# Monitors, dashboard, metric. This provider takes no JSON of a pipeline: pipeline.sh makes it.
terraform {
  required_providers {
    datadog = {
      source = "DataDog/datadog"
    }
  }
}

# Keys: DD_API_KEY and DD_APP_KEY in the environment; another site: DD_HOST=https://api.datadoghq.eu
provider "datadog" {}

resource "datadog_monitor_json" "grantex" {
  for_each = { for one in jsondecode(file("${path.module}/monitors.json")) : one.name => one }
  monitor  = jsonencode(each.value)
}

resource "datadog_dashboard_json" "grantex" {
  dashboard = file("${path.module}/dashboard.json")
}

locals {
  metric = jsondecode(file("${path.module}/metric.json")).data
}

resource "datadog_logs_metric" "grantex" {
  name = local.metric.id
  compute {
    aggregation_type = local.metric.attributes.compute.aggregation_type
  }
  filter {
    query = local.metric.attributes.filter.query
  }
  dynamic "group_by" {
    for_each = local.metric.attributes.group_by
    content {
      path     = group_by.value.path
      tag_name = group_by.value.tag_name
    }
  }
}
"""

S3 = """terraform {
  required_providers {
    aws = {
      source = "hashicorp/aws"
    }
  }
}

provider "aws" {@{region}}

locals {
  rules = jsondecode(file("${path.module}/lifecycle.json")).Rules
}

resource "aws_s3_bucket" "archive" {
  bucket              = "@{bucket}"
  object_lock_enabled = @{locks}
}

resource "aws_s3_bucket_public_access_block" "archive" {
  bucket                  = aws_s3_bucket.archive.id
  block_public_acls       = true
  ignore_public_acls      = true
  block_public_policy     = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "archive" {
  bucket = aws_s3_bucket.archive.id
  rule {
    apply_server_side_encryption_by_default {
@{encryption}
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "archive" {
  count  = length(local.rules) > 0 ? 1 : 0
  bucket = aws_s3_bucket.archive.id
  dynamic "rule" {
    for_each = local.rules
    content {
      id     = rule.value.ID
      status = rule.value.Status
      filter {
        prefix = rule.value.Filter.Prefix
      }
      dynamic "transition" {
        for_each = try(rule.value.Transitions, [])
        content {
          days          = transition.value.Days
          storage_class = transition.value.StorageClass
        }
      }
      expiration {
        days                         = try(rule.value.Expiration.Days, null)
        expired_object_delete_marker = try(rule.value.Expiration.ExpiredObjectDeleteMarker, null)
      }
      dynamic "noncurrent_version_expiration" {
        for_each = try([rule.value.NoncurrentVersionExpiration.NoncurrentDays], [])
        content {
          noncurrent_days = noncurrent_version_expiration.value
        }
      }
    }
  }
}

# The job's own right: attach it to its role.
resource "aws_iam_policy" "grantex_beam" {
  name   = "grantex-beam"
  policy = file("${path.module}/policy.json")
}
"""
S3_LOCK = """
# COMPLIANCE cannot be taken back by anybody: read object_lock.json before you apply this.
locals {
  lock = jsondecode(file("${path.module}/object_lock.json")).Rule.DefaultRetention
}

resource "aws_s3_bucket_object_lock_configuration" "archive" {
  bucket = aws_s3_bucket.archive.id
  rule {
    default_retention {
      mode  = local.lock.Mode
      years = local.lock.Years
    }
  }
}
"""


def s3(bucket: str, region: str | None, kms_key: str | None, lock: str) -> str:
    """main.tf beside lifecycle.json, policy.json and, with a lock, object_lock.json."""
    algorithm = '      sse_algorithm = "AES256"'
    if kms_key:
        algorithm = f'      sse_algorithm     = "aws:kms"\n      kms_master_key_id = "{kms_key}"'
    text = filled(
        S3,
        bucket=bucket,
        region=f'\n  region = "{region}"\n' if region else "",
        locks=str(lock != "off").lower(),
        encryption=algorithm,
    )
    return text + (S3_LOCK if lock != "off" else "")


GCS = """terraform {
  required_providers {
    google = {
      source = "hashicorp/google"
    }
  }
}

locals {
  rules = jsondecode(file("${path.module}/lifecycle.json")).lifecycle.rule
}

resource "google_storage_bucket" "archive" {
  name                        = "@{bucket}"
  project                     = "@{project}"
  location                    = "@{location}"
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
@{more}
  dynamic "lifecycle_rule" {
    for_each = local.rules
    content {
      action {
        type          = lifecycle_rule.value.action.type
        storage_class = try(lifecycle_rule.value.action.storageClass, null)
      }
      condition {
        age            = lifecycle_rule.value.condition.age
        matches_prefix = try(lifecycle_rule.value.condition.matchesPrefix, null)
      }
    }
  }
}

# The job's own right: to make objects, and nothing else.
resource "google_storage_bucket_iam_member" "grantex_beam" {
  bucket = google_storage_bucket.archive.name
  role   = "roles/storage.objectCreator"
  member = "serviceAccount:NAME@PROJECT.iam.gserviceaccount.com"
}
"""


def gcs(bucket: str, project: str, location: str, kms_key: str | None, seconds: int, lock: str) -> str:
    """main.tf beside lifecycle.json. seconds: for which objects cannot be deleted, with a lock."""
    more = ""
    if kms_key:
        more += f'  encryption {{\n    default_kms_key_name = "{kms_key}"\n  }}\n'
    if lock != "off":
        is_locked = str(lock == "compliance").lower()  # which nobody can take back
        more += (
            f"  retention_policy {{\n    retention_period = {seconds}\n    is_locked = {is_locked}\n  }}\n"
        )
    return filled(GCS, bucket=bucket, project=project, location=location, more=more)


def filled(text: str, **values: str) -> str:
    """`text` with a value in place of each @{name}."""
    for name, value in values.items():
        text = text.replace(f"@{{{name}}}", value)
    return text
