//! placeholder until the module is delivered
