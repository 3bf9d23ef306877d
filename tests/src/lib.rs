//! Tests of the whole: `tidy` checks the project's rules, `e2e` the product from outside.
