//! A workload under admission, with the places of its strategy.

use podshaper_core::json::TextMap;
use podshaper_core::object::controller_of;
use podshaper_core::pod::Metadata;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::annotations::{StrategyAnnotation, strategy_of};

/// Anything with a pod template, or a template of Jobs.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Workload<'a> {
    #[serde(borrow)]
    metadata: Option<Metadata<'a>>,
    #[serde(borrow)]
    spec: Option<Box<WorkloadSpec<'a>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WorkloadSpec<'a> {
    replicas: Option<u32>,
    completions: Option<u32>,
    #[serde(borrow)]
    template: Option<Box<Workload<'a>>>,
    #[serde(borrow)]
    job_template: Option<Box<Workload<'a>>>,
}

impl<'a> Workload<'a> {
    /// Parses a workload. An object of another shape has no strategy.
    pub(crate) fn read(object: &'a RawValue) -> Self {
        serde_json::from_str(object.get()).unwrap_or_default()
    }

    /// Whether a controller created the workload. A warning would not reach a user.
    pub(crate) fn is_controlled(&self) -> bool {
        let owners = self.metadata.as_ref().and_then(|metadata| metadata.owner_references.as_deref());
        controller_of(owners).is_some()
    }

    /// All strategies of the workload. The first one, that of the pods, counts.
    pub(crate) fn strategies(&self) -> Vec<StrategyAnnotation<'_>> {
        let spec = self.spec.as_deref();
        let below = spec.and_then(|spec| spec.template.as_ref().or(spec.job_template.as_ref()));
        let mut all = below.map(|below| below.strategies()).unwrap_or_default();
        let annotations: Option<&TextMap<'_>> =
            self.metadata.as_ref().and_then(|metadata| metadata.annotations.as_ref());
        all.extend(strategy_of(|key| annotations?.get(key).map(|value| &**value)));
        all
    }

    /// The desired number of pods.
    pub(crate) fn pods(&self) -> u32 {
        let spec = self.spec.as_deref();
        let job = spec.and_then(|spec| spec.job_template.as_ref());
        let own = spec.and_then(|spec| spec.replicas.or(spec.completions)).unwrap_or(1);
        job.map_or(own, |job| job.pods())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::annotations::STRATEGY;

    fn all(object: &Value) -> (Vec<String>, u32) {
        let raw = serde_json::value::to_raw_value(object).unwrap();
        let workload = Workload::read(&raw);
        (workload.strategies().iter().map(|strategy| strategy.text.to_owned()).collect(), workload.pods())
    }

    #[test]
    fn every_place_of_a_strategy() {
        let with = |text: &str| json!({"annotations": {STRATEGY: text}});
        let template = json!({"metadata": with("pods"), "spec": {"containers": []}});
        let deployment = json!({"metadata": with("own"), "spec": {"replicas": 7, "template": template}});
        assert_eq!(all(&deployment), (vec!["pods".into(), "own".into()], 7));
        let job = json!({"metadata": with("job"), "spec": {"completions": 5, "template": template}});
        let cron_job = json!({"metadata": with("own"), "spec": {"jobTemplate": job}});
        assert_eq!(all(&cron_job), (vec!["pods".into(), "job".into(), "own".into()], 5));
        assert_eq!(all(&json!({"metadata": {}, "spec": {"template": "odd"}})), (vec![], 1));
        assert_eq!(all(&json!(7)), (vec![], 1));
    }
}
