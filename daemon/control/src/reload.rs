//! Reading the configuration file again (SIGHUP, `zone-proxy reload`).

use std::rc::Rc;

use crate::config::{Config, ConfigErrors};
use crate::daemon::Daemon;

impl Daemon {
    /// Goes by the configuration file as it is now. An invalid one changes nothing.
    pub async fn reload(self: &Rc<Self>) -> Result<(), ConfigErrors> {
        let old = self.config();
        let new = match Config::read(&self.config_file) {
            Ok(new) => new,
            Err(errors) => {
                let error = errors.lines().join("; ");
                tracing::error!(error, "the configuration is invalid, and everything stays as it was");
                return Err(errors);
            }
        };
        let restart = old.needs_restart(&new);
        if !restart.is_empty() {
            tracing::warn!(keys = restart.join(", "), "these keys take a restart");
        }
        let _changing = self.change_lock.lock().await;
        let live = old.taking_live(new);
        (self.set_level)(live.log.level);
        let same_tls = old.tls == live.tls;
        self.config.replace(Rc::new(live));
        if !same_tls {
            self.renew_tls();
        }
        if let Err(error) = self.push_policy().await {
            tracing::error!(%error, "the rules of now are not in force everywhere");
        }
        self.firewall.request_check();
        tracing::info!("the configuration was read again");
        Ok(())
    }
}
