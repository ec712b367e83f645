-- The health of an AgentPool (velda.io) for Argo CD, by base Lua alone.
-- It goes by the conditions that the controller writes for kstatus, in kstatus's own order, as Flux and helm do:
-- https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md
-- Where kstatus takes an object without conditions, or with ones of an older spec, as finished, this one waits.

local function of(status, message)
  return { status = status, message = message }
end

local generation = obj.metadata.generation
local status = obj.status

if obj.metadata.deletionTimestamp ~= nil then
  return of("Progressing", "The pool is being deleted: its sessions and agents end first")
end
if type(status) ~= "table" or status.observedGeneration ~= generation then
  return of("Progressing", "Waiting for the controller to look at the pool's present spec")
end

local ready = nil
if type(status.conditions) == "table" then
  for _, condition in ipairs(status.conditions) do
    if condition.observedGeneration == generation then
      if condition.type == "Stalled" and condition.status == "True" then
        return of("Degraded", condition.message)
      elseif condition.type == "Reconciling" and condition.status == "True" then
        return of("Progressing", condition.message)
      elseif condition.type == "Ready" then
        ready = condition
      end
    end
  end
end

if ready == nil then
  return of("Progressing", "Waiting for the controller to say whether the pool is ready")
end
if ready.status ~= "True" then
  return of("Progressing", ready.message)
end
if obj.spec.autoscaler.maxReplicas == 0 then
  return of("Suspended", "maxReplicas is 0: the pool gets no agents")
end
return of("Healthy", ready.message)
