pub mod queues;
pub mod vring;
