//! Programs that a user of plib would write.
