//! A gateway over TCP, through the codec of another author: what is answered, in which order, and
//! what closes a connection.

mod connections;
mod fetch;
mod gate;
mod list_offsets;
mod node;
mod produce;
mod requests;
mod topics;
