/** One model that is there or is not, for servers of tests. */
import { type Models, type ServedModel, stillLoading } from '../../src/http/model-shelf.js';

export function soleModel(id: string, model: () => ServedModel | null): Models {
  return {
    entries: [{ id, createdSeconds: model()?.createdSeconds ?? 0 }],
    current: model,
    lease: async () => {
      const loaded = model();
      if (loaded === null) throw stillLoading();
      return { model: loaded, release: () => undefined };
    },
  };
}
