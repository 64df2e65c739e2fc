-- FedRAMP: 5 years.
ALTER TABLE `PROJECT.DATASET.events` SET OPTIONS (partition_expiration_days = 1827);
