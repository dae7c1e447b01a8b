// Package podsamples pins the module whose test data are the samples.
package podsamples

import _ "k8s.io/api/core/v1"
