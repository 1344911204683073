//! The routes of leases of the temporary pools.

use super::{
    api,
    refusal::{Refusal, Shared, blocking, broken},
    signed::Signed,
};
use axum::{Json, extract::State, http::StatusCode};
use rackstrap_base::clock::Timestamp;
use rackstrap_dhcp::{Lease, LeaseState};
use rackstrap_model::decide::World;
use rackstrap_registries::timeline::{Event, EventKind, Level, Subject};
use rackstrap_store::Table;
use rackstrap_wire::HwAddr;
use std::{collections::HashSet, net::Ipv4Addr};

pub(super) fn all_leases(context: &Shared) -> Result<Vec<api::LeaseRow>, Refusal> {
    let found = context.store.scan::<Lease>(Table::Leases, b"").map_err(broken)?;
    let now = Timestamp::now();
    Ok(found.iter().map(|(_, lease)| row_at(lease, now)).collect())
}

/// A lease as it is at `now`. The store has it as it was granted.
pub(super) fn row_at(lease: &Lease, now: Timestamp) -> api::LeaseRow {
    api::LeaseRow {
        ipaddr: lease.ipaddr,
        hwaddr: lease.hwaddr,
        uuid: lease.uuid,
        state: match lease.state {
            LeaseState::Released => api::LeaseStateName::Released,
            _ if lease.expires <= now => api::LeaseStateName::Expired,
            LeaseState::Bound => api::LeaseStateName::Bound,
            LeaseState::Declined => api::LeaseStateName::Declined,
        },
        since: lease.since,
        expires: lease.expires,
        granted: lease.granted,
    }
}

/// Whether the lease keeps the address from other machines.
pub(super) fn holds(row: &api::LeaseRow) -> bool {
    matches!(row.state, api::LeaseStateName::Bound | api::LeaseStateName::Declined)
}

/// The first and the last address of each pool without an address for another machine (pure). Addresses that were only
/// offered count as free, as in the pool itself.
pub(super) fn full_pools(world: &World, leases: &[api::LeaseRow]) -> Vec<(Ipv4Addr, Ipv4Addr)> {
    let held: HashSet<u32> = leases
        .iter()
        .filter(|row| holds(row))
        .map(|row| u32::from(row.ipaddr))
        .collect();
    let pools = world
        .site
        .subnets
        .iter()
        .filter_map(|subnet| Some((subnet, subnet.pool?)));
    let full = pools.filter(|(subnet, (first, last))| {
        let free = |address: u32| {
            let ipaddr = Ipv4Addr::from(address);
            !held.contains(&address)
                && ipaddr != subnet.server
                && Some(ipaddr) != subnet.router
                && world.inventory.by_ipaddr(ipaddr).is_none()
        };
        !(u32::from(*first)..=u32::from(*last)).any(free)
    });
    full.map(|(_, pool)| pool).collect()
}

pub(super) fn lease_of(
    context: &Shared,
    wanted: impl Fn(&api::LeaseRow) -> bool,
) -> Result<Option<api::LeaseRow>, Refusal> {
    Ok(all_leases(context)?.into_iter().find(wanted))
}

pub(super) async fn list(State(context): State<Shared>) -> Result<Json<Vec<api::LeaseRow>>, Refusal> {
    blocking(move || all_leases(&context)).await?.map(Json)
}

pub(super) async fn release(
    State(context): State<Shared>,
    Signed { asked, by }: Signed<api::ReleaseLeases>,
) -> Result<Json<api::Released>, Refusal> {
    blocking(move || release_now(&context, &asked, &by)).await?.map(Json)
}

fn release_now(context: &Shared, asked: &api::ReleaseLeases, by: &str) -> Result<api::Released, Refusal> {
    let all = all_leases(context)?;
    let mut wanted = Vec::new();
    let mut none = Vec::new();
    for text in &asked.leases {
        let rows: Vec<&api::LeaseRow> = match (text.parse::<Ipv4Addr>(), text.parse::<HwAddr>()) {
            (Ok(address), _) => all.iter().filter(|row| row.ipaddr == address).collect(),
            (_, Ok(card)) => all.iter().filter(|row| row.hwaddr == card).collect(),
            _ => {
                let text =
                    format!("'{text}' is not an address and not a hardware address; `rackstrap lease list` shows both");
                return Err(Refusal(StatusCode::UNPROCESSABLE_ENTITY, text));
            }
        };
        if rows.is_empty() {
            none.push(text.clone());
        }
        wanted.extend(rows);
    }
    wanted.sort_by_key(|row| row.ipaddr);
    wanted.dedup_by_key(|row| row.ipaddr);
    let released: Vec<api::LeaseRow> = match asked.dry_run {
        true => wanted.into_iter().cloned().collect(),
        false => {
            let addresses: Vec<Ipv4Addr> = wanted.iter().map(|row| row.ipaddr).collect();
            let done = (context.release)(&addresses).map_err(broken)?;
            let rows: Vec<api::LeaseRow> = wanted
                .into_iter()
                .filter(|row| done.contains(&row.ipaddr))
                .cloned()
                .collect();
            for row in &rows {
                let detail = format!("lease of {} released by {by}", row.ipaddr);
                tracing::info!("{detail}");
                let event = Event::new(Timestamp::now(), EventKind::Lease, Level::Ok, detail);
                context.recorder.record(Subject::Machine(row.hwaddr), event);
            }
            rows
        }
    };
    Ok(api::Released { released, none })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// As `crates/control/src/answers/tests.rs` has it for all other rows: the names of the row are those of `--json`.
    #[test]
    fn the_json_of_leases_keeps_its_fields() {
        let lease = json!({
            "ipaddr": "10.5.255.1", "hwaddr": "52:54:00:00:00:09", "uuid": null, "state": "declined", "since": 1, "expires": 9,
            "granted": 2,
        });
        let read: Lease = serde_json::from_value(lease.clone()).unwrap();
        assert_eq!(serde_json::to_value(row_at(&read, Timestamp(8))).unwrap(), lease);
        let over = row_at(&read, Timestamp(9));
        assert_eq!(serde_json::to_value(&over).unwrap()["state"], "expired");
    }
}
