//! The routes of the temporary pools' leases.

use super::{
    api,
    refusal::{Refusal, Shared, blocking, broken},
    signed::Signed,
};
use crate::{
    clock::Timestamp,
    store::Table,
    timeline::{Event, Level, Subject},
};
use axum::{Json, extract::State, http::StatusCode};
use rackstrap_wire::HwAddr;
use std::{collections::BTreeMap, net::Ipv4Addr};

pub(super) fn hwaddr(row: &api::LeaseRow) -> Option<HwAddr> {
    row.lease.get("hwaddr")?.as_str()?.parse().ok()
}

pub(super) fn all_leases(context: &Shared) -> Result<Vec<api::LeaseRow>, Refusal> {
    let found = context
        .store
        .scan::<BTreeMap<String, serde_json::Value>>(Table::Leases, b"");
    let rows = found.map_err(broken)?.into_iter().filter_map(|(key, mut lease)| {
        let ipaddr = Ipv4Addr::from(<[u8; 4]>::try_from(key).ok()?);
        lease.remove("ipaddr");
        Some(api::LeaseRow { ipaddr, lease })
    });
    Ok(rows.collect())
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
            (_, Ok(card)) => all.iter().filter(|row| hwaddr(row) == Some(card)).collect(),
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
                if let Some(hwaddr) = hwaddr(row) {
                    let event = Event::new(Timestamp::now(), "lease", Level::Ok, detail);
                    context.recorder.record(Subject::Machine(hwaddr), event);
                }
            }
            rows
        }
    };
    Ok(api::Released { released, none })
}
