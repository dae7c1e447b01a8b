//! The machine types on offer, and the cheapest one that fits a VM.

use crate::sizing::VmSize;

/// A machine type of the cloud.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// The cloud's name, such as `m6i.large`.
    pub name: String,
    /// The size of its VMs.
    pub size: VmSize,
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

    /// The first machine that is at least as large as `needed`. As in cloud-api-adaptor, a machine with GPUs is only for
    /// pods that need some.
    pub fn best_fit(&self, needed: VmSize) -> Option<&Machine> {
        self.0.iter().find(|machine| {
            let size = machine.size;
            size.vcpus >= needed.vcpus
                && size.memory >= needed.memory
                && if needed.gpus == 0 { size.gpus == 0 } else { size.gpus >= needed.gpus }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(name: &str, vcpus: u64, memory: u64, gpus: u64, price: f64) -> Machine {
        Machine { name: name.into(), size: VmSize { vcpus, memory, gpus }, price }
    }

    fn fit(catalogue: &Catalogue, vcpus: u64, memory: u64, gpus: u64) -> Option<&str> {
        catalogue.best_fit(VmSize { vcpus, memory, gpus }).map(|m| m.name.as_str())
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
    fn best_fit_without_prices_is_the_smallest() {
        let catalogue = Catalogue::new(vec![machine("b", 2, 8192, 0, 0.0), machine("a", 4, 4096, 0, 0.0)]);
        assert_eq!(fit(&catalogue, 1, 1, 0), Some("a"));
        assert_eq!(fit(&catalogue, 1, 8000, 0), Some("b"));
    }
}
