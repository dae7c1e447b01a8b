//! The catalogue of machines.

use serde::Deserialize;

use super::amount::Amount;
use super::key::{ConfigError, Key};
use crate::catalogue::{Catalogue, Machine};
use crate::size::Size;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a machine")]
pub(super) struct MachineSettings {
    name: String,
    vcpus: u64,
    memory: Amount,
    #[serde(default)]
    gpus: u64,
    price: Option<f64>,
}

pub(super) fn catalogue(machines: Vec<MachineSettings>, key: &Key) -> Result<Catalogue, ConfigError> {
    let priced = machines.iter().filter(|machine| machine.price.is_some()).count();
    if priced != 0 && priced != machines.len() {
        return Err(key.error("either every machine has a price or none has"));
    }
    let machine = |machine: MachineSettings| {
        let key = key.then(&machine.name);
        let price = machine.price.unwrap_or_default();
        if !price.is_finite() || price < 0.0 {
            return Err(key.then("price").error("must be a number that isn't negative"));
        }
        if machine.name.trim().is_empty() || machine.vcpus == 0 {
            return Err(key.error("a machine has a name and at least one vCPU"));
        }
        let memory = machine.memory.mebibytes(&key.then("memory"))?;
        Ok(Machine {
            name: machine.name,
            size: Size { vcpus: machine.vcpus, memory, gpus: machine.gpus },
            price,
        })
    };
    Ok(Catalogue::new(machines.into_iter().map(machine).collect::<Result<_, _>>()?))
}
