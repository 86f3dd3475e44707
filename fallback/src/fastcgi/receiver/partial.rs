//! A request of which something is still to come.

use super::{Fault, Request};
use crate::fastcgi::budget::Charge;
use crate::fastcgi::params::{Params, ParamsError};

/// Most bytes of all variables of one request together: four times the largest head that the settings allow, since web servers
/// send a target up to three times.
pub const PARAMS_BYTES_MAX: usize = 256 * 1024;

/// A request of which something is still to come.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) id: u16,
    pub(super) keep: bool,
    pub(super) raw_params: Vec<u8>,
    /// `None` until they are complete.
    pub(super) params: Option<Params>,
    pub(super) params_bytes: usize,
    pub(super) body: Vec<u8>,
    pub(super) body_max: usize,
    pub(super) fault: Option<Fault>,
    pub(super) charge: Charge,
}

impl Partial {
    pub(super) fn add_params(&mut self, piece: &[u8]) {
        let bytes = self.raw_params.len() + piece.len();
        if self.fault.is_some() {
        } else if bytes > PARAMS_BYTES_MAX {
            self.refuse(Fault::ParamsTooLarge);
        } else if !self.charge.raise(bytes) {
            self.refuse(Fault::NoMemory);
        } else {
            self.raw_params.extend_from_slice(piece);
        }
    }

    pub(super) fn end_params(&mut self, body_max: &dyn Fn(&Params) -> usize) {
        self.params_bytes = self.raw_params.len();
        let params = Params::parse(std::mem::take(&mut self.raw_params)).unwrap_or_else(|error| {
            self.refuse(match error {
                ParamsError::TooMany => Fault::ParamsTooLarge,
                ParamsError::Truncated => Fault::ParamsMalformed,
            });
            Params::default()
        });
        self.body_max = body_max(&params);
        self.params = Some(params);
    }

    pub(super) fn add_body(&mut self, piece: &[u8]) {
        let bytes = self.body.len() + piece.len();
        if self.fault.is_some() {
        } else if bytes > self.body_max {
            self.refuse(Fault::BodyTooLarge(self.body_max));
        } else if !self.charge.raise(self.params_bytes + bytes) {
            self.refuse(Fault::NoMemory);
        } else {
            self.body.extend_from_slice(piece);
        }
    }

    /// From now on nothing is kept of what comes.
    pub(super) fn refuse(&mut self, fault: Fault) {
        self.fault = Some(fault);
        self.raw_params = Vec::new();
        self.body = Vec::new();
        if let Some(params) = &mut self.params {
            *params = Params::default();
        }
        self.charge.clear();
    }

    pub(super) fn finish(self) -> Request {
        let Self { id, keep, params, body, fault, charge, .. } = self;
        Request { id, keep, params: params.unwrap_or_default(), body, fault, _charge: charge }
    }
}
