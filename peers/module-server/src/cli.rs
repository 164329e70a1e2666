//! The command line: which part of the library does what is typed.

mod arguments;
mod authority;
mod endpoints;
mod output;
mod proxies;
mod sessions;
mod zone;

use std::process::ExitCode;

use zone_module::Result;
use zone_module::zone::Zone;

pub(crate) use arguments::Arguments;
use arguments::{Authority, Command, Trust};
use zone_module::authority::Retirement;

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let open = || Zone::open(&arguments.zone);
    match arguments.command {
        Command::Init { zone_name, module_server } => zone::init(&arguments.zone, zone_name, module_server),
        Command::Provision(wanted) => proxies::provision(&open()?, wanted).await,
        Command::Unprovision { name, forget } => proxies::unprovision(&open()?, &name, forget).await,
        Command::Status { name, json } => proxies::status(&open()?, name.as_ref(), json).await,
        Command::Endpoints { watch: true, .. } => endpoints::watch(&open()?).await,
        Command::Endpoints { json, .. } => endpoints::list(&open()?, json).await,
        Command::Connect { target, policy } => sessions::connect(&open()?, &target, policy.end_to_end).await,
        Command::Forward { local, target, policy, sessions } => {
            sessions::forward(&open()?, local, target, policy.end_to_end, sessions).await
        }
        Command::Issue(what) => zone::issue(&open()?, &what),
        Command::Rotate { name } => proxies::rotate(&open()?, &name).await,
        Command::Revoke(whom) => zone::revoke(&open()?, whom).await,
        Command::Authority(Authority::Status) => authority::status(&open()?),
        Command::Authority(Authority::Renew { role, out }) => {
            authority::renew(&open()?, role, out.as_deref()).await
        }
        Command::Authority(Authority::Retire { role, cut, anyway, out }) => {
            authority::retire(&open()?, role, Retirement { cut, anyway }, out.as_deref()).await
        }
        Command::Trust(Trust::Push) => zone::push_trust(&open()?).await,
    }
}
