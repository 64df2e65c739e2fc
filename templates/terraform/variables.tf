variable "project" {
  description = "Project of everything here."
  type        = string
}

variable "region" {
  description = "Region of the job, its bucket and its dataset."
  type        = string
  default     = "europe-west1"
}

variable "template" {
  description = "What templates/build.sh wrote: gs://BUCKET/PATH/grantex.json."
  type        = string
}

variable "repository" {
  description = "Artifact Registry repository with the image of that template."
  type        = string
}

variable "generation" {
  description = "Part of the job's name. A new one starts a new job beside the old one, which is then drained."
  type        = string
  default     = "1"
}

variable "workers" {
  description = "How many workers, always."
  type        = number
  default     = 2
}

variable "machine_type" {
  type    = string
  default = "n2-standard-2"
}

variable "subnetwork" {
  description = "regions/REGION/subnetworks/NAME with Private Google Access; null is the default network."
  type        = string
  default     = null
}

variable "private_ips" {
  description = "Workers without addresses of their own; the feed and every destination that is not Google's then need Cloud NAT."
  type        = bool
  default     = false
}

variable "kms_key" {
  description = "projects/P/locations/L/keyRings/R/cryptoKeys/K for the job's state, in its region; null is Google's own."
  type        = string
  default     = null
}

variable "more_parameters" {
  description = "Further parameters of templates/metadata.json. Secrets are references."
  type        = map(string)
  default     = {}
}
