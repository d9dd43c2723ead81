//! From a cell that does not hold to a dispute about it.

use peerproof_proof::cells;
use peerproof_wire::{Case, CellOpening};

use super::judging::{Compute as _, can_be};
use super::{Checker, SpotError};
use crate::dispute::{Accuser, DisputeError, Traced};

impl Checker {
    /// Takes the side of who accuses: traces a cell that does not hold, from what was opened
    /// of it. The stretches of [`Checker::ranges`] must be there.
    ///
    /// # Errors
    /// The opening does not lead to the receipt, or holds what can't be computed with: then
    /// the cell is wrong by its commitments alone, and there is nothing to narrow.
    pub fn accuse(&self, case: &Case, opening: &CellOpening) -> Result<Accuser, SpotError> {
        let (cell, receipt) = (opening.cell, &case.receipt);
        let first = self.first_read(cell)?;
        let opened = cells::verify(receipt, &self.dimensions(), cell, first, opening)?;
        if cell.layer as usize == self.shape.layers {
            let own = Traced::head(self.ends()?.transformer(), cell, &opened.leaving)?;
            return Ok(Accuser::new(own, receipt, opening, opened, Vec::new()));
        }
        let row = self.dimensions().kv_row_bytes as usize;
        if !opened.before.chunks_exact(row).all(|row| can_be(&self.shape, row)) {
            return Err(DisputeError::Bounds.into());
        }
        let ends = if cell.layer == 0 { Some(self.ends()?) } else { None };
        let token = opened.leaf.token;
        let embedding = match ends {
            Some(_) if (token as usize) < self.shape.vocabulary => self.embedding(token)?,
            _ => Vec::new(),
        };
        let (layer, ends) = (self.layer(cell.layer)?, ends.map(|ends| &**ends.transformer()));
        let (entering, before) = (&opened.entering, &opened.before);
        let own = Traced::layer((&layer, 0), ends, cell, entering, before)?;
        Ok(Accuser::new(own, receipt, opening, opened, embedding))
    }
}
