#!/bin/sh
# Builds and pushes the image, and writes the template that points to it.
#   templates/build.sh IMAGE gs://BUCKET/PATH/grantex.json
# IMAGE is REGION-docker.pkg.dev/PROJECT/REPOSITORY/grantex-beam:VERSION; never reuse a version.
set -eu
[ $# -eq 2 ] || { sed -n '2,4s/^# *//p' "$0" >&2; exit 2; }
image=$1 template=$2
case $template in gs://*.json) ;; *) echo "$template: must be gs://BUCKET/PATH/NAME.json" >&2; exit 2 ;; esac
case ${image##*/} in
    *:latest) echo "$image: name a version that stays what it is" >&2; exit 2 ;;
    *:*) ;;
    *) echo "$image: must end with :VERSION" >&2; exit 2 ;;
esac
cd "$(dirname "$0")/.."

docker build --platform linux/amd64 --build-arg "IMAGE=$image" -f templates/Dockerfile -t "$image" .
# The image must be able to read its own parameters before anybody waits for a launcher.
docker run --rm --entrypoint python "$image" -m pipelines.flags.template | diff templates/metadata.json - \
    || { echo "the image is not made of this source" >&2; exit 1; }
docker push "$image"
gcloud dataflow flex-template build "$template" --image "$image" --sdk-language PYTHON \
    --metadata-file templates/metadata.json
