//! Whole answers: every refusal in both languages, snapshots, and hostile values.
