// Package v1beta1 stands in for FRR-K8s's types. The version of that module that MetalLB names is not served, and only
// MetalLB's FRR-K8s mode, which no lab uses, makes objects of them: what is here is what the compiler asks for. The kind
// is known to no scheme, so that this mode says so and ends, instead of seeming to work.
package v1beta1

import (
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func AddToScheme(*runtime.Scheme) error { return nil }

type FRRConfiguration struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	Spec FRRConfigurationSpec
}

func (c *FRRConfiguration) DeepCopy() *FRRConfiguration {
	copied := &FRRConfiguration{TypeMeta: c.TypeMeta, ObjectMeta: *c.ObjectMeta.DeepCopy()}
	c.Spec.DeepCopyInto(&copied.Spec)
	return copied
}

func (c *FRRConfiguration) DeepCopyObject() runtime.Object { return c.DeepCopy() }

type FRRConfigurationSpec struct {
	BGP          BGPConfig
	NodeSelector metav1.LabelSelector
}

func (s *FRRConfigurationSpec) DeepCopyInto(out *FRRConfigurationSpec) {
	text, err := json.Marshal(s)
	if err == nil {
		err = json.Unmarshal(text, out)
	}
	if err != nil {
		panic(err)
	}
}

type BGPConfig struct {
	Routers     []Router
	BFDProfiles []BFDProfile
}

type Router struct {
	ASN       uint32
	ID, VRF   string
	Neighbors []Neighbor
	Prefixes  []string
}

type DynamicASNMode string

type SecretReference struct{ Name, Namespace string }

type Neighbor struct {
	ASN                                                                    uint32
	DynamicASN                                                             DynamicASNMode
	Address, Interface, Password, BFDProfile                               string
	Port                                                                   *uint16
	PasswordSecret                                                         SecretReference
	HoldTime, KeepaliveTime, ConnectTime                                   *metav1.Duration
	EBGPMultiHop, EnableGracefulRestart, DualStackAddressFamily, DisableMP bool
	ToAdvertise                                                            Advertise
}

type Advertise struct {
	Allowed                   AllowedOutPrefixes
	PrefixesWithLocalPref     []LocalPrefPrefixes
	PrefixesWithCommunity     []CommunityPrefixes
	PrefixesWithAsPathPrepend []AsPathPrependPrefixes
}

type AllowedOutPrefixes struct{ Prefixes []string }

type LocalPrefPrefixes struct {
	LocalPref uint32
	Prefixes  []string
}

type CommunityPrefixes struct {
	Community string
	Prefixes  []string
}

type AsPathPrependPrefixes struct {
	AsPathPrepend uint8
	Prefixes      []string
}

type BFDProfile struct {
	Name                                                                          string
	ReceiveInterval, TransmitInterval, DetectMultiplier, EchoInterval, MinimumTTL *uint32
	EchoMode, PassiveMode                                                         *bool
}
