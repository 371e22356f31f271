//! The HTTP/1 codec proven: against itself however its bytes come, against httparse and hyper, and in its second readings.

mod corpus;
mod differential;
mod reading;
mod second;
mod splits;
