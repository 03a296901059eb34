//! Tests of the whole room against a GitLab that answers by script.
