//! What a verb does to a machine, by whether its power is on (pure).

use rackstrap_control::api::{BootFrom, PowerVerb};

/// What a controller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    On,
    Off,
    Soft,
    Cycle,
    Reset,
    /// Blink for so many seconds; 0 = the light goes off.
    Identify(u8),
    /// Boot from there once; with true, as UEFI does.
    Boot(BootFrom, bool),
}

/// What some verbs need to know.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Details {
    /// Seconds that the identify light blinks; 0 = it goes off.
    pub identify_secs: u8,
    /// Where the next boot is from; none if nothing was said.
    pub boot_from: Option<BootFrom>,
    /// Whether the firmware boots as UEFI does then.
    pub efi: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing; with the reason.
    Nothing(&'static str),
    /// The machine's power does not allow it: the reason, and what to do instead.
    Refused(&'static str, &'static str),
    /// This action, and then the power must be on or off; none if the state says nothing about its success.
    Do(Action, Option<bool>),
}

/// The plan for a machine whose power is `on`.
pub(super) fn plan(verb: PowerVerb, on: bool, details: Details) -> Plan {
    let off = "the power is off";
    match (verb, on) {
        (PowerVerb::Status, _) => Plan::Nothing(""),
        (PowerVerb::On, true) => Plan::Nothing("already on"),
        (PowerVerb::On, false) => Plan::Do(Action::On, Some(true)),
        (PowerVerb::Off | PowerVerb::Soft, false) => Plan::Nothing("already off"),
        (PowerVerb::Off, true) => Plan::Do(Action::Off, Some(false)),
        (PowerVerb::Soft, true) => Plan::Do(Action::Soft, Some(false)),
        (PowerVerb::Cycle, true) => Plan::Do(Action::Cycle, Some(true)),
        (PowerVerb::Reset, true) => Plan::Do(Action::Reset, Some(true)),
        // Chassis Control has no effect then (28.3 of "IPMI Specification, v2.0, rev. 1.1").
        (PowerVerb::Cycle | PowerVerb::Reset, false) => Plan::Refused(off, "`rackstrap power on` switches it on"),
        (PowerVerb::Identify, _) => Plan::Do(Action::Identify(details.identify_secs), None),
        (PowerVerb::Boot, _) => match details.boot_from {
            Some(from) => Plan::Do(Action::Boot(from, details.efi), None),
            None => Plan::Refused("nothing says where the next boot is from", "add --from"),
        },
    }
}

/// What to do about a machine that did not reach its state in time.
pub(super) fn late_help(verb: PowerVerb) -> &'static str {
    match verb {
        PowerVerb::Soft => {
            "`rackstrap power off` switches it off without its operating system; --within gives it more time"
        }
        _ => "`rackstrap power status` shows whether it reached it later",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_does_only_what_the_present_state_needs() {
        use Action::*;
        let details = Details {
            identify_secs: 15,
            boot_from: Some(BootFrom::Network),
            efi: true,
        };
        let of = |verb, on| plan(verb, on, details);
        assert_eq!(of(PowerVerb::On, false), Plan::Do(On, Some(true)));
        assert_eq!(of(PowerVerb::On, true), Plan::Nothing("already on"));
        assert_eq!(of(PowerVerb::Off, true), Plan::Do(Off, Some(false)));
        assert_eq!(of(PowerVerb::Soft, true), Plan::Do(Soft, Some(false)));
        assert_eq!(of(PowerVerb::Soft, false), Plan::Nothing("already off"));
        assert_eq!(of(PowerVerb::Cycle, true), Plan::Do(Cycle, Some(true)));
        assert_eq!(of(PowerVerb::Reset, true), Plan::Do(Reset, Some(true)));
        for verb in [PowerVerb::Cycle, PowerVerb::Reset] {
            assert!(matches!(of(verb, false), Plan::Refused("the power is off", _)));
        }
        for on in [false, true] {
            assert_eq!(of(PowerVerb::Identify, on), Plan::Do(Identify(15), None));
            assert_eq!(of(PowerVerb::Status, on), Plan::Nothing(""));
            assert_eq!(of(PowerVerb::Boot, on), Plan::Do(Boot(BootFrom::Network, true), None));
            assert!(matches!(
                plan(PowerVerb::Boot, on, Details::default()),
                Plan::Refused(..)
            ));
        }
    }
}
