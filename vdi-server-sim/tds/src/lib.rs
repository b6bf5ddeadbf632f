#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod codec;
mod read;
mod variant;
mod write;

pub mod collation;
pub mod connection;
pub mod error;
pub mod feature;
pub mod login;
pub mod packet;
pub mod prelogin;
pub mod request;
pub mod response;
pub mod rpc;
pub mod tls;
pub mod token;
pub mod transaction;
pub mod types;
pub mod value;
pub mod version;

pub use error::Error;
