//! A decision for one boot that carries out an order, instead of the usual one.

use super::{NodeDecision, Requester, World, agent_problem, choose_variant};
use crate::{
    inventory::Settings,
    orders::{Once, OnceBoot, RESCUE_INIT},
};
use rackstrap_base::arch::Architecture;

impl NodeDecision {
    /// Why the node cannot carry out `what`, whichever loader asks; none if it can. Its files on the server are not looked at.
    pub fn cannot(&self, world: &World, requester: &Requester, what: &OnceBoot) -> Option<String> {
        let mut decision = self.clone();
        let once = Once {
            id: 0,
            what: what.clone(),
            by: String::new(),
        };
        decision.carry_out(world, requester, &once).err()
    }

    /// Makes this the decision for the boot that carries out the order. A shell in RAM gets no disk, no checks and no mounts, and runs
    /// instead of init; root and files stay those of the node's usual boot.
    ///
    /// # Errors
    /// The node cannot do that; the decision is unchanged. The text names the order.
    pub fn carry_out(&mut self, world: &World, requester: &Requester, once: &Once) -> Result<(), String> {
        let what = &once.what;
        let image = match what {
            OnceBoot::Local => None,
            OnceBoot::Memtest => match requester.architecture() {
                None | Some(Architecture::Amd64) => None,
                Some(machine) => {
                    return Err(format!(
                        "{what}: memtest86+ is for x86-64 only, and {} is an {machine} machine",
                        self.node.name
                    ));
                }
            },
            OnceBoot::Rescue | OnceBoot::Shell | OnceBoot::Script(_) => {
                Some(self.image.clone().map_err(|problem| format!("{what}: {problem}"))?)
            }
            OnceBoot::Image(image) => {
                let version = world
                    .images
                    .get(image)
                    .ok_or_else(|| format!("{what}: image {image} does not exist; see: rackstrap image list"))?;
                let variant = choose_variant(&self.node.name, version, requester.architecture(), &mut self.why);
                let settings = Settings::of_node(&world.site, &self.node, |_| ());
                let variant = variant.and_then(|variant| {
                    let problem = agent_problem(&self.subnet, &settings, &variant);
                    problem.map_or(Ok(variant), Err)
                });
                Some(variant.map_err(|problem| format!("{what}: {problem}"))?)
            }
        };
        let usual = self.image.as_ref().ok();
        if let Some(freebsd) = image.as_ref().or(usual).filter(|version| version.is_freebsd()) {
            return Err(format!(
                "{what}: {} is FreeBSD, whose loader asks for no script; orders for one boot are for Linux",
                freebsd.manifest.image
            ));
        }
        self.why
            .push(format!("this boot {}, by the order of {}", what.describe(), once.by));
        self.local = false;
        match what {
            OnceBoot::Image(_) => {
                if let Some(image) = image {
                    self.image = Ok(image);
                }
            }
            OnceBoot::Rescue | OnceBoot::Shell => {
                self.disk = None;
                RESCUE_INIT.clone_into(&mut self.init);
                self.kernel_args = what.kernel_args(&self.kernel_args);
                self.checks.clear();
                self.required_mounts.clear();
                self.check_login = false;
                self.network_first = false;
            }
            OnceBoot::Local | OnceBoot::Memtest | OnceBoot::Script(_) => {}
        }
        Ok(())
    }
}
