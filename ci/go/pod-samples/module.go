// Package podsamples pins the module with the samples in its test data.
package podsamples

import _ "k8s.io/api/core/v1"
