//! Black box: the `frazil` binary on a temporary directory, spoken to over TCP by librdkafka and,
//! where a stock client would not do what is to be tested, by frames of our own.

mod admin;
mod cold;
mod crash;
mod drain;
mod groups;
mod lost;
mod nodes;
mod operator;
mod outage;
mod produce;
mod raw;
mod recover;
mod server;
mod wire;
mod zone;
