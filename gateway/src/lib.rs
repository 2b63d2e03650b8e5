//! Frazil's protocol edge: connections, one file per Kafka API, group coordinator
