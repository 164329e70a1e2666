//! What the tests of this crate run: a test's own process has more than one thread, and must stay what it is.

use std::process::{Command, ExitCode};

use zone_privileges::{Account, PrivilegeError, Strictness, drop_to, give_up, is_root, verify};

fn main() -> ExitCode {
    let part = std::env::args().nth(1).unwrap_or_default();
    let played = match part.as_str() {
        "drop" => dropped(),
        "second-thread" => with_a_second_thread(),
        "nothing" => verify(Strictness::Ordinary).map(|facts| println!("VERIFIED {facts:?}")),
        "give-up" => {
            give_up().and_then(|()| verify(Strictness::Ordinary)).map(|facts| println!("VERIFIED {facts:?}"))
        }
        _ => {
            eprintln!("usage: zone-drop-example drop|second-thread|nothing|give-up");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = played {
        println!("ERROR {error}");
    }
    ExitCode::SUCCESS
}

fn dropped() -> Result<(), PrivilegeError> {
    let nobody = Account::named("nobody")?;
    drop_to(&nobody)?;
    println!("VERIFIED {:?}", verify(Strictness::Bounding)?);
    println!("ROOT {}", is_root());
    match drop_to(&nobody) {
        Ok(()) => println!("AGAIN done"),
        Err(error) => println!("AGAIN {error}"),
    }
    match Command::new("cat").arg("/proc/self/status").output() {
        Ok(output) => println!("{}", String::from_utf8_lossy(&output.stdout)),
        Err(error) => println!("cat: {error}"),
    }
    Ok(())
}

fn with_a_second_thread() -> Result<(), PrivilegeError> {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || wait.recv());
    let result = drop_to(&Account::named("nobody")?).and_then(|()| verify(Strictness::Bounding));
    drop(go);
    let _ = other.join();
    result.map(|facts| println!("VERIFIED {facts:?}"))
}
