//! The host that packets come to is read as it is, and rules that name too little are not guessed.

mod host;
mod objects;
