require (
