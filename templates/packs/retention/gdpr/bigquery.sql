-- GDPR: 3 years.
ALTER TABLE `PROJECT.DATASET.events` SET OPTIONS (partition_expiration_days = 1096);

-- Erase one person: everything that names them, and everything that names a grant of theirs. Run it again
-- after two hours: rows that came just before may still be in the streaming buffer, which DELETE cannot
-- change.
CREATE OR REPLACE PROCEDURE `PROJECT.DATASET.events_erase`(person STRING)
BEGIN
  DELETE FROM `PROJECT.DATASET.events`
  WHERE JSON_VALUE(data, '$.principalId') = person
    OR JSON_VALUE(data, '$.email') = person
    OR JSON_VALUE(data, '$.grantId') IN (
      SELECT JSON_VALUE(data, '$.grantId') FROM `PROJECT.DATASET.events` WHERE JSON_VALUE(data, '$.principalId') = person
    );
END;
