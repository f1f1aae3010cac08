// Package controllers stands in for the Multi-Cluster Services API's controllers, a module that is not served. Cilium's
// operator uses one constant of it, for clusters meshed with others, which no lab is.
package controllers

const DerivedServiceAnnotation = "multicluster.kubernetes.io/derived-service"
