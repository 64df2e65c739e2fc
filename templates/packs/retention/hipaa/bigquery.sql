-- HIPAA: 7 years.
ALTER TABLE `PROJECT.DATASET.events` SET OPTIONS (partition_expiration_days = 2557);
