#!/bin/sh
# Starts a job from the template.
#   templates/launch.sh NAME gs://BUCKET/PATH/grantex.json PARAMETERS.yaml [flags of gcloud...]
# PARAMETERS.yaml holds the job's parameters, one `name: value` a line, indented below `--parameters:`, as
# templates/parameters.yaml does: a file keeps commas, quotes and blanks as they are.
# REGION, and a service account for the workers (SERVICE_ACCOUNT), come from the environment; so do
#   WORKERS (2), MACHINE_TYPE (n2-standard-2), STAGING (gs://...), SUBNETWORK (regions/R/subnetworks/S),
#   PRIVATE_IPS (true: the subnetwork then needs Private Google Access, and Cloud NAT for all that is not
#   Google's: the feed, S3, Datadog, Splunk, Kafka, AWS secrets),
#   KMS_KEY (the service agents of Dataflow and Compute Engine must be allowed to use it: docs/dataflow.md).
set -eu
[ $# -ge 3 ] || { sed -n '2,10s/^# *//p' "$0" >&2; exit 2; }
name=$1 template=$2 parameters=$3
shift 3
: "${REGION:?the region to run in, such as europe-west1}"
: "${SERVICE_ACCOUNT:?the account of the workers, NAME@PROJECT.iam.gserviceaccount.com}"
[ -r "$parameters" ] || { echo "$parameters: cannot be read" >&2; exit 2; }
workers=${WORKERS:-2}

# A fixed number of workers: whenever it changes, a stream of the feed may be cut.
set -- --num-workers "$workers" --max-workers "$workers" "$@"
set -- --worker-machine-type "${MACHINE_TYPE:-n2-standard-2}" "$@"
[ -z "${STAGING:-}" ] || set -- --staging-location "$STAGING/staging" --temp-location "$STAGING/temp" "$@"
[ -z "${SUBNETWORK:-}" ] || set -- --subnetwork "$SUBNETWORK" "$@"
[ "${PRIVATE_IPS:-false}" != true ] || set -- --disable-public-ips "$@"
[ -z "${KMS_KEY:-}" ] || set -- --dataflow-kms-key "$KMS_KEY" "$@"
exec gcloud dataflow flex-template run "$name" --template-file-gcs-location "$template" --region "$REGION" \
    --service-account-email "$SERVICE_ACCOUNT" --flags-file "$parameters" "$@"
