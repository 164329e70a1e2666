//! What the menu offers, as a tree: `A-A-2` is the third choice of the first menu below the first.

/// A menu.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Menu {
    /// The first one.
    Root,
    /// `A`
    Operations,
    /// `A-A`
    ZoneProxy,
    /// `B`
    Information,
}

/// What a choice leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Another menu.
    Go(Menu),
    /// Something to be done.
    Do(Act),
}

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Look whether this host is ready.
    Preflight,
    /// Install the proxy.
    Install,
    /// Show the payload.
    Payload,
    /// Say how the proxy is.
    Status,
    /// Compare the live firewall with what it should be.
    Firewall,
    /// Show the log.
    Logs,
    /// Show and change where 17488 is served, and where the log goes.
    Settings,
    /// Go to a newer version.
    Upgrade,
    /// Leave the zone.
    Reset,
    /// Remove the proxy.
    Remove,
    /// Show how to come to a first session.
    Instructions,
    /// Show the versions.
    Versions,
    /// Show the drop folder.
    Packages,
}

/// A line of a menu.
#[derive(Debug)]
pub(crate) struct Item {
    /// What is typed.
    pub(crate) key: char,
    /// Its name.
    pub(crate) name: &'static str,
    /// What choosing it does, as the menu shows it beside the name.
    pub(crate) what: &'static str,
    /// What it leads to.
    pub(crate) choice: Choice,
}

const fn item(key: char, name: &'static str, what: &'static str, choice: Choice) -> Item {
    Item { key, name, what, choice }
}

const ROOT: [Item; 2] = [
    item('A', "Operations", "install, look after and remove", Choice::Go(Menu::Operations)),
    item('B', "Information", "instructions, versions, packages", Choice::Go(Menu::Information)),
];
const OPERATIONS: [Item; 1] =
    [item('A', "Zone Proxy", "sessions to endpoints on the internet", Choice::Go(Menu::ZoneProxy))];
const ZONE_PROXY: [Item; 10] = [
    item('1', "Preflight", "is this host ready?", Choice::Do(Act::Preflight)),
    item('2', "Install", "a version, and open 17488", Choice::Do(Act::Install)),
    item('3', "Payload", "what the Module Server needs (holds a secret)", Choice::Do(Act::Payload)),
    item('4', "Status", "how the proxy is", Choice::Do(Act::Status)),
    item('5', "Firewall", "are its rules right? to whom is a port open, and why?", Choice::Do(Act::Firewall)),
    item('6', "Logs", "the newest lines", Choice::Do(Act::Logs)),
    item(
        '7',
        "Settings",
        "where 17488 is served, to whom, and where the log goes",
        Choice::Do(Act::Settings),
    ),
    item('8', "Upgrade", "to a newer version; sessions stay", Choice::Do(Act::Upgrade)),
    item('9', "Reset", "leave the zone: sessions end", Choice::Do(Act::Reset)),
    item('0', "Remove", "the proxy and all that it left", Choice::Do(Act::Remove)),
];
const INFORMATION: [Item; 3] = [
    item('1', "Instructions", "from a bare host to a first session", Choice::Do(Act::Instructions)),
    item('2', "Versions", "of the installer and of the proxy", Choice::Do(Act::Versions)),
    item('3', "Packages", "what could be installed, and who signed it", Choice::Do(Act::Packages)),
];

impl Menu {
    /// Its lines.
    pub(crate) fn items(self) -> &'static [Item] {
        match self {
            Self::Root => &ROOT,
            Self::Operations => &OPERATIONS,
            Self::ZoneProxy => &ZONE_PROXY,
            Self::Information => &INFORMATION,
        }
    }

    /// How it is reached.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Root => "",
            Self::Operations => "A",
            Self::ZoneProxy => "A-A",
            Self::Information => "B",
        }
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Root => "Main menu",
            Self::Operations => "Operations",
            Self::ZoneProxy => "Zone Proxy",
            Self::Information => "Information",
        }
    }

    /// The menu that leads here.
    #[must_use]
    pub(crate) fn back(self) -> Self {
        match self {
            Self::Root | Self::Operations | Self::Information => Self::Root,
            Self::ZoneProxy => Self::Operations,
        }
    }

    /// What a typed letter or digit leads to.
    pub(crate) fn choose(self, typed: &str) -> Option<&'static Item> {
        let mut letters = typed.chars();
        let key = letters.next()?.to_ascii_uppercase();
        self.items().iter().find(|item| item.key == key && letters.as_str().is_empty())
    }

    /// What a whole path such as `A-A-2` leads to, and the menu that it stands in.
    pub(crate) fn follow(path: &str) -> Option<(Self, Choice)> {
        let mut at = Self::Root;
        let mut steps = path.split('-').peekable();
        loop {
            let choice = at.choose(steps.next()?)?.choice;
            match (choice, steps.peek()) {
                (choice, None) => return Some((at, choice)),
                (Choice::Go(menu), Some(_)) => at = menu,
                (Choice::Do(_), Some(_)) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_menu_is_where_its_path_leads() {
        for menu in [Menu::Operations, Menu::ZoneProxy, Menu::Information] {
            assert_eq!(Menu::follow(menu.path()), Some((menu.back(), Choice::Go(menu))));
        }
        assert_eq!(Menu::follow("a-a-2"), Some((Menu::ZoneProxy, Choice::Do(Act::Install))));
        for nowhere in ["", "-", "A-", "A-A-2-1", "C", "A--A", "AA", "A-A-22"] {
            assert_eq!(Menu::follow(nowhere), None, "{nowhere}");
        }
    }

    #[test]
    fn no_key_stands_twice_or_for_something_else() {
        for menu in [Menu::Root, Menu::Operations, Menu::ZoneProxy, Menu::Information] {
            let mut keys: Vec<char> = menu.items().iter().map(|item| item.key).collect();
            assert!(!keys.contains(&'R') && !keys.contains(&'Z'), "R and Z mean the same everywhere");
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), menu.items().len());
        }
    }
}
