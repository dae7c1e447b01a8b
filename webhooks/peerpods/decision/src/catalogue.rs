//! The machine types on offer, and the cheapest one that fits a VM.

use crate::sizing::VmSize;

/// A machine type of the cloud.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// The cloud's name, such as `m6i.large`.
    pub name: String,
    /// The size of its VMs.
    pub size: VmSize,
    /// The resources that its GPUs are; empty if they are any.
    pub gpu_resources: Vec<String>,
    /// In any unit: only the order counts.
    pub price: f64,
}

/// Machine types, the preferred one first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogue(Vec<Machine>);

impl Catalogue {
    /// Sorts by price, then by GPUs, memory and vCPUs. cloud-api-adaptor searches its own list in that order if prices
    /// are equal.
    pub fn new(mut machines: Vec<Machine>) -> Self {
        machines.sort_by(|a, b| {
            let by_size = |machine: &Machine| (machine.size.gpus, machine.size.memory, machine.size.vcpus);
            a.price.total_cmp(&b.price).then_with(|| by_size(a).cmp(&by_size(b)))
        });
        Self(machines)
    }

    /// The machines, the preferred one first.
    pub(crate) fn machines(&self) -> impl Iterator<Item = &Machine> {
        self.0.iter()
    }

    /// Whether the machines have disks, so that ephemeral-storage counts.
    pub(crate) fn has_disks(&self) -> bool {
        self.0.iter().any(|machine| machine.size.disk > 0)
    }

    /// The first machine that is at least as large as `needed` and has GPUs of each of `gpu_resources`. As in
    /// cloud-api-adaptor, a machine with GPUs is only for pods that need some.
    pub fn best_fit(&self, needed: VmSize, gpu_resources: &[&str]) -> Option<&Machine> {
        self.0.iter().find(|machine| {
            let size = machine.size;
            let is_of = |resource: &&str| machine.gpu_resources.iter().any(|own| own == resource);
            size.vcpus >= needed.vcpus
                && size.memory >= needed.memory
                && size.disk >= needed.disk
                && if needed.gpus == 0 { size.gpus == 0 } else { size.gpus >= needed.gpus }
                && (machine.gpu_resources.is_empty() || gpu_resources.iter().all(is_of))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(name: &str, vcpus: u64, memory: u64, gpus: u64, price: f64) -> Machine {
        let size = VmSize { vcpus, memory, gpus, disk: 0 };
        Machine { name: name.into(), size, gpu_resources: Vec::new(), price }
    }

    fn fit(catalogue: &Catalogue, vcpus: u64, memory: u64, gpus: u64) -> Option<&str> {
        catalogue.best_fit(VmSize { vcpus, memory, gpus, disk: 0 }, &[]).map(|m| m.name.as_str())
    }

    #[test]
    fn best_fit_is_the_cheapest() {
        let catalogue = Catalogue::new(vec![
            machine("large", 2, 8192, 0, 0.09),
            machine("burst", 2, 8192, 0, 0.08),
            machine("small", 1, 2048, 0, 0.02),
            machine("gpu", 8, 32768, 1, 0.05),
        ]);
        assert_eq!(fit(&catalogue, 1, 2048, 0), Some("small"));
        assert_eq!(fit(&catalogue, 1, 2049, 0), Some("burst"));
        assert_eq!(fit(&catalogue, 3, 0, 0), None, "a machine with GPUs is only for pods that need some");
        assert_eq!(fit(&catalogue, 1, 0, 1), Some("gpu"));
        assert_eq!(fit(&catalogue, 1, 0, 2), None);
    }

    #[test]
    fn best_fit_has_the_disk_and_the_gpus() {
        let mut machines =
            vec![machine("a", 8, 1, 1, 1.0), machine("b", 8, 1, 1, 2.0), machine("c", 8, 1, 1, 3.0)];
        machines[0].gpu_resources = vec!["example.com/small".into()];
        machines[1].gpu_resources = vec!["example.com/large".into()];
        machines[2].size.disk = 100;
        let catalogue = Catalogue::new(machines);
        let fit = |disk, resource| {
            let needed = VmSize { vcpus: 1, memory: 1, gpus: 1, disk };
            catalogue.best_fit(needed, &[resource]).map(|machine| machine.name.as_str())
        };
        assert_eq!(fit(0, "example.com/small"), Some("a"));
        assert_eq!(fit(0, "example.com/large"), Some("b"));
        assert_eq!(fit(0, "example.com/other"), Some("c"));
        assert_eq!(fit(100, "example.com/small"), Some("c"));
        assert_eq!(fit(101, "example.com/small"), None);
    }

    #[test]
    fn best_fit_without_prices_is_the_smallest() {
        let catalogue = Catalogue::new(vec![machine("b", 2, 8192, 0, 0.0), machine("a", 4, 4096, 0, 0.0)]);
        assert_eq!(fit(&catalogue, 1, 1, 0), Some("a"));
        assert_eq!(fit(&catalogue, 1, 8000, 0), Some("b"));
    }
}
